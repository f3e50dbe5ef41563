"""What GitLab shows and runs: the child pipeline of cells, and their report in JUnit's format."""
