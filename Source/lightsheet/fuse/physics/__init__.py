"""The forward model of a view, and the loss by which a prediction has to give the view back."""
