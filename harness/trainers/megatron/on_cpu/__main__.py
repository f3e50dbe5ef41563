"""Print the table: what is replaced, and why."""

from __future__ import annotations

from harness.trainers.megatron.on_cpu.table import rows

for row in rows():
    print(f"{row.names}\n    {row.why}")
