"""Many cells: what they left, night after night, and which of them may be red for a while."""
