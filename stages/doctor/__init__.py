"""Look a run over: before it, whether model, tokenizer, data and reward models fit; after it, how PPO went.

With ``--run`` it reads the metrics of every PPO stage of a run folder, also of one that is going on or was stopped,
and says what is off, why it may be, and what helps. Without, it checks the recipe. Writes nothing.

    python -m stages.doctor run_dir=runs/mine ppo.updates=20
    python -m stages.doctor --run runs/toy

Exit codes: 0 healthy, also with warnings about a recipe; 1 a finding in a run, or a problem with a recipe; 2 there is
nothing to look at, or a setting is wrong.
"""
