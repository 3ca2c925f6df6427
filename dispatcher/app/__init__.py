"""The composition root: builds every part and runs it until it is told to stop."""
