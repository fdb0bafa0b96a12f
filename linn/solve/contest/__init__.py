"""A contest on this machine: problems with subtasks, and the judge of what is submitted."""
