"""Attribution maps, the results of explanations, and their exports."""
