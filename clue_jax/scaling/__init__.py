"""The scaling law of a training: runs of a plan, fits of forms to them, forecasts."""
