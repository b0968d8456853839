"""How far a prediction is to be trusted, and what is applied of it."""
