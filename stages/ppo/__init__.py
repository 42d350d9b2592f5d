"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""
