"use strict";
// Finding a case among many. Without this script every row is shown.
(() => {
  document.body.classList.add("scripted");
  const find = document.getElementById("find"), red = document.getElementById("red"), found = document.getElementById("found");
  const rows = [...document.querySelectorAll("tr[data-case]")];
  const cases = document.querySelectorAll("table.matrix tr[data-case]");
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      row.hidden = (red.checked && !row.hasAttribute("data-red")) || !words.every((word) => row.dataset.case.includes(word));
    }
    const left = [...cases].filter((row) => !row.hidden).length;
    found.textContent = left === cases.length ? "" : `${left} of ${cases.length} cases`;
  };
  find.addEventListener("input", show);
  red.addEventListener("change", show);
  find.form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
