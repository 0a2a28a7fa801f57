"""Controls: LEAFE with one part taken away or replaced, at the same budget.

What they are to show: whether it is the named turn, the experience text, the
success filter, the interaction itself, or only more successes to imitate that
lifts Pass@k.
"""

from __future__ import annotations

from leafe_jax.methods import stage1
from leafe_jax.methods.advice import ADVICE
from leafe_jax.methods.leafe import Recipe

# Without a dot: a list of arms on the command line takes identifiers alone.
BETAS = {
    'leafe_beta_quarter': 0.25, 'leafe_beta_half': 0.5, 'leafe_beta_1': 1.0,
    'leafe_beta_4': 4.0,
}

ARMS = (
    Recipe('leafe_cf', rehearsal=False).arm('L_cf alone'),
    *(
        Recipe(name, beta=beta).arm(f'LEAFE with beta = {beta:g}')
        for name, beta in BETAS.items()
    ),
    Recipe('leafe_all', experience={'cf_filter': 'all'}).arm(
        'LEAFE with every branch in D_cf, successful or not'
    ),
    Recipe('leafe_random_turn', stage1.RANDOM_TURN).arm(
        'LEAFE going back to a random turn'
    ),
    Recipe('leafe_no_hint', stage1.NO_HINT).arm(
        'LEAFE branching at the named turn without showing e'
    ),
    Recipe('leafe_branch_hint', stage1.BRANCH_HINT).arm(
        'LEAFE with e in the prompt for the whole branch'
    ),
    Recipe('leafe_noisy', stage1.NOISY).arm(
        'LEAFE where 3 of 10 rollbacks lose an action'
    ),
    Recipe('rft_matched', stage1.SAMPLE, False, volume_of=stage1.EXPLORE).arm(
        'rft with as many D_reh examples as leafe_reh'
    ),
    Recipe(
        'refine', stage1.REFINE, counterfactual=False, experience={'reh_hinted': True}
    ).arm('L_reh on chains of attempts that are told how the last one ended'),
    ADVICE,
)
