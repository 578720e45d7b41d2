"""The companion: facts that notebooks leave, views and report made of them, the runner of the
notebooks, the explorer and the `vwsd` command. Imports all others; only notebooks import it.
"""
