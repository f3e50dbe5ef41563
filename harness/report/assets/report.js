"use strict";
// The plots of a cell's report. Without this script the page shows the same curves as pictures.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plots = []; // {figure, spec, charts}
  const dashes = { "resumed": [6, 4], "resumed − continuous": [6, 4], "interrupted": [2, 3] };
  let zoom = null; // [first step, last step], the same for all plots
  let zooming = false;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (name) =>
    style(name === "golden" ? "--golden"
      : name === "interrupted" || name.startsWith("joined") ? "--interrupted"
      : name.startsWith("resumed") ? "--resumed" : "--continuous");

  // Exact values: JavaScript's shortest text of a double reads back as the same double.
  const text = (line, index) => {
    if (index == null) return "–";
    const value = line.values[index];
    if (value != null) return String(value);
    return (line.odd && line.odd[index]) || "–";
  };
  const tick = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e9) return +(value / 1e9).toPrecision(5) + "G";
    if (size >= 1e6) return +(value / 1e6).toPrecision(5) + "M";
    return size < 1e-3 || size >= 1e5 ? value.toExponential(1) : String(+value.toPrecision(6));
  };

  const said = document.createElement("p");
  said.className = "said";
  said.setAttribute("aria-live", "polite");
  document.body.append(said);

  function vertical(u, step, stroke, dash, words, row) {
    if (step < u.scales.x.min || step > u.scales.x.max) return;
    const { ctx } = u, ratio = devicePixelRatio;
    const x = Math.round(u.valToPos(step, "x", true));
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = stroke;
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash(dash.map((d) => d * ratio));
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
    if (words) {
      ctx.font = `${row ? 600 : 400} ${12 * ratio}px system-ui, sans-serif`;
      const wide = ctx.measureText(words).width;
      const left = x + wide + 10 * ratio > u.bbox.left + u.bbox.width;
      ctx.textAlign = left ? "right" : "left";
      ctx.textBaseline = "top";
      const at = x + (left ? -5 : 5) * ratio;
      // Most curves fall: right of the mark their top is free, left of it their bottom.
      const down = left ? u.bbox.top + u.bbox.height - (18 + 15 * row) * ratio : u.bbox.top + (3 + 15 * row) * ratio;
      ctx.globalAlpha = 0.8;
      ctx.fillStyle = style("--bg");
      ctx.fillRect(left ? at - wide - 2 * ratio : at - 2 * ratio, down, wide + 4 * ratio, 14 * ratio);
      ctx.globalAlpha = 1;
      ctx.fillStyle = stroke;
      ctx.fillText(words, at, down);
    }
    ctx.restore();
  }

  function band(u, spec, bands) {
    const { ctx } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.fillStyle = style("--band");
    for (const { limits } of bands) {
      if (!limits) continue;
      const known = spec.steps.map((s, i) => [s, limits[i]]).filter(([, l]) => l != null);
      ctx.beginPath();
      for (const [s, l] of known) ctx.lineTo(u.valToPos(s, "x", true), u.valToPos(l, "y", true));
      for (const [s, l] of known.reverse()) ctx.lineTo(u.valToPos(s, "x", true), u.valToPos(-l, "y", true));
      ctx.fill();
    }
    ctx.restore();
  }

  function marks(u, spec, words) {
    const near = spec.bad.length && Math.abs(spec.bad[0].step - data.k);
    vertical(u, data.k, style("--muted"), [4, 4], words && `k = ${data.k}`, 0);
    for (const [i, bad] of spec.bad.slice(0, 2).entries()) {
      const row = near !== false ? 1 + i : i;
      vertical(u, bad.step, style("--fail"), [], words && i === 0 ? `first bad step ${bad.step}` : "", row);
    }
  }

  function chart(at, spec, lines, height, residual) {
    const grid = { stroke: style("--line"), width: 1 };
    const axis = { stroke: style("--muted"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const bands = spec.bands.filter((one) => one.around === lines[0].name);
    const limit = () => {
      let highest = 0;
      spec.steps.forEach((step, i) => {
        if (zoom && (step < zoom[0] || step > zoom[1])) return;
        for (const { limits } of bands) if (limits && limits[i] != null) highest = Math.max(highest, limits[i]);
        for (const line of lines) if (line.values[i] != null) highest = Math.max(highest, Math.abs(line.values[i]));
      });
      return (highest || 1) * 1.15;
    };
    const first = spec.steps[0], last = spec.steps[spec.steps.length - 1];
    const u = new uPlot({
      width: Math.max(at.clientWidth, 200), height,
      scales: {
        x: { time: false, range: () => zoom || (first === last ? [first - 1, last + 1] : [first, last]) },
        y: residual ? { range: () => { const l = limit(); return [-l, l]; } } : {},
      },
      cursor: {
        drag: { x: true, y: false, setScale: false },
        sync: { key: "steps", scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
      },
      axes: [
        { ...axis, show: true, size: 30, values: (self, v) => v.map((s) => (Number.isInteger(s) ? s : "")) },
        { ...axis, size: 76, values: (self, v) => v.map((one) => tick(residual ? +one.toPrecision(3) : one)), ...(residual ? { splits: () => { const l = limit() / 1.15; return [-l, 0, l]; } } : {}) },
      ],
      legend: { markers: { width: 2 } },
      series: [
        { label: "step", value: (self, value, series, index) => (index == null ? "–" : String(spec.steps[index])) },
        ...lines.map((line) => ({
          label: line.name,
          stroke: line.name === "golden" ? colour("golden") + "bb" : colour(line.name),
          width: line.name === "golden" ? 5 : 2,
          dash: dashes[line.name],
          points: line.name === "golden" ? { show: false } : {},
          value: (self, value, series, index) => text(line, index),
        })),
      ],
      hooks: {
        drawAxes: residual ? [(self) => band(self, spec, bands)] : [],
        draw: [(self) => marks(self, spec, !residual)],
        setSelect: [(self) => {
          if (self.select.width > 3) {
            const from = self.posToVal(self.select.left, "x"), to = self.posToVal(self.select.left + self.select.width, "x");
            setZoom([from, to]);
          }
          self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
      },
    }, [spec.steps, ...lines.map((line) => line.values)], at);
    u.over.addEventListener("dblclick", () => setZoom(null));
    return u;
  }

  function setZoom(range) {
    if (zooming) return;
    zooming = true;
    zoom = range && range[1] - range[0] >= 1 ? range : range && [Math.floor(range[0]), Math.floor(range[0]) + 1];
    for (const plot of plots) for (const u of plot.charts) u.setData(u.data, true);
    zooming = false;
  }

  function scaleZoom(spec, factor) {
    const first = spec.steps[0], last = spec.steps[spec.steps.length - 1];
    const [from, to] = zoom || [first, last];
    const middle = from <= data.k && data.k <= to ? data.k : (from + to) / 2;
    const half = Math.max(1, ((to - from) * factor) / 2);
    const low = Math.max(first, middle - half), high = Math.min(last, middle + half);
    setZoom(low <= first && high >= last ? null : [low, high]);
  }

  function button(words, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.setAttribute("aria-label", label);
    made.title = label;
    made.addEventListener("click", act);
    return made;
  }

  function draw(plot) {
    for (const u of plot.charts) u.destroy();
    const { spec, live } = plot;
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append(
      button("+", `zoom in on ${spec.metric}`, () => scaleZoom(spec, 0.5)),
      button("−", `zoom out of ${spec.metric}`, () => scaleZoom(spec, 2)),
      button("all", `show all steps of ${spec.metric}`, () => setZoom(null)),
    );
    live.replaceChildren(tools);
    const panel = (lines, height, residual) => {
      const at = document.createElement("div");
      at.className = "chart";
      live.append(at);
      plot.charts.push(chart(at, spec, lines, height, residual));
    };
    plot.charts = [];
    if (spec.steps.length) panel(spec.lines, 230, false);
    for (const residual of spec.residuals) panel([residual], 105, true);
    live.style.minHeight = "";
  }

  function keys(plot) {
    let index = -1;
    plot.live.addEventListener("keydown", (event) => {
      if (event.target !== plot.live) return;
      const last = plot.spec.steps.length - 1;
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last,
        PageUp: index - 10, PageDown: index + 10 }[event.key];
      if (to === undefined || !plot.charts.length) return;
      event.preventDefault();
      index = Math.min(last, Math.max(0, to));
      const step = plot.spec.steps[index];
      const u = plot.charts[0];
      u.setCursor({ left: u.valToPos(step, "x"), top: 20 }, true, true);
      const lines = [...plot.spec.lines, ...plot.spec.residuals];
      said.textContent = `step ${step}: ` + lines.map((line) => `${line.name} ${text(line, index)}`).join(", ");
    });
  }

  document.body.classList.add("scripted");
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const plot = plots[Number(target.dataset.plot)];
      if (isIntersecting && !plot.charts.length) draw(plot);
    }
  }, { rootMargin: "400px" });
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      for (const u of plots[Number(target.dataset.plot)].charts) {
        const width = Math.max(target.clientWidth, 200);
        if (width !== u.width) u.setSize({ width, height: u.height });
      }
    }
  });
  for (const live of document.querySelectorAll(".live")) {
    const spec = data.plots[Number(live.dataset.plot)];
    const plot = { live, spec, charts: [] };
    plots[Number(live.dataset.plot)] = plot;
    live.hidden = false;
    live.tabIndex = 0;
    live.setAttribute("role", "group");
    live.setAttribute("aria-label", `plot of ${spec.metric}: arrow keys read its values step by step`);
    live.style.minHeight = `${280 + 130 * spec.residuals.length}px`;
    keys(plot);
    seen.observe(live);
    resized.observe(live);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) if (plot.charts.length) draw(plot);
  });

  for (const copy of document.querySelectorAll(".copy")) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const code = copy.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }
})();
