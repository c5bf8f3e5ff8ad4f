"""Tests by room; a part is a script run_PART in one of them, what several rooms share is in support."""
