"""How fast the library is, beside the plain loop of the CLIPSeg study and the machine's own limit:
`make bench`, or `python -m benchmarks`.
"""
