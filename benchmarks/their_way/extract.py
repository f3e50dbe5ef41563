"""Event files → a golden-like JSON, in a process of its own: ``extract.py EVENTS OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

if __name__ == "__main__":
    events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        values = {str(event.step): round(event.value, 5) for event in events.Scalars(tag)}
        steps = list(map(int, values))
        found[tag] = {"start_step": steps[0], "end_step": steps[-1], "step_interval": 1, "values": values}
    Path(sys.argv[2]).write_text(json.dumps(found))
