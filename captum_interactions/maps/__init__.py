"""Attribution maps: what an explanation returns, and its exports."""
