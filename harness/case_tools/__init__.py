"""Every case below a folder, accounted for: what ``harness cases …`` shows, and what goldens belong to."""
