"""Train the helpfulness and the safety reward model on graded comparisons (section 3.2.2).

Both start from the SFT model, each as an adapter with a head. Evaluated on held-out comparisons, per grade. Stopped at
any instant, the stage goes on from its last checkpoint when it is started again.

    python -m stages.reward
    python -m stages.reward "reward.models=[safety]" reward.safety.data=pairs.jsonl.gz run_dir=runs/pairs
    python -m stages.reward --evaluate-only
    python -m stages.reward --ablate margin,auxiliary,head,loss
"""
