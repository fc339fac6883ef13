"""An engine as fast as a GPU that costs next to nothing: for measuring what is above the engine."""
