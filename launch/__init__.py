"""Starting stages of clue_jax somewhere: `python -m launch BACKEND [--flag=value] -- STAGE ...`"""
