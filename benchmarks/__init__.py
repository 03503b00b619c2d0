"""Which strategy needs the fewest evaluations, on problems with a known answer.

Run `python benchmarks/strategies.py` and `python benchmarks/proposal_cost.py`; see
docs/benchmarks.md. Not part of the wheel.
"""
