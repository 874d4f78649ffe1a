"""What a model is worth: exact means, floors, scores, and the report."""
