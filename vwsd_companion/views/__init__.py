"""Tables and figures: pure functions of the stored facts. `catalogue` has them all by name."""
