"""Look a run over: before it, whether model, tokenizer, data and reward models fit; after it, how PPO went.

With ``--run`` it reads the metrics of every PPO stage of a run folder, also of one that is going on or was stopped,
and says what is off, why it may be, and what helps. With ``--verify`` it reads every file of the run, and of what the
run was made from, and says which are others now; ``--accept STAGE`` takes those of one stage as meant, which makes
later stages out of date. Without ``--run``, it checks the recipe.

    python -m stages.doctor run_dir=runs/mine ppo.updates=20
    python -m stages.doctor --run runs/toy
    python -m stages.doctor --run runs/toy --verify
    python -m stages.doctor --run runs/toy --accept round-1/annotate

Exit codes: 0 healthy, also with warnings about a recipe; 1 a finding in a run, or a problem with a recipe; 2 there is
nothing to look at, or a setting is wrong.
"""
