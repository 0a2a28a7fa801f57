"""CodeContests: programs are submitted, run and judged, turn by turn.

After Li et al., "Competition-Level Code Generation with AlphaCode" (arXiv
2203.07814), MBPP (arXiv 2108.07732) and HumanEval (arXiv 2107.03374).
"""
