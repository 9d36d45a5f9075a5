"""How the demo model was made. Not in the wheel."""
