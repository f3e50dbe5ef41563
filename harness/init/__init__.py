"""Behind ``harness init``: look at a script, write its case, and what a repository needs beside it."""
