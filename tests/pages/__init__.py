"""Pages in a real browser: headless Chromium, no network."""
