"""The whole recipe, for as many rounds as configured: base, SFT, then annotate, reward, PPO and evaluate.

Finished stages are kept: started again, it goes on where it was. Ends by printing the table and the report's path.

    python -m stages.pipeline
    python -m stages.pipeline seed=1 run_dir=runs/seed-1 rounds=2
"""
