"""Tables and figures: pure functions of the stored facts."""
