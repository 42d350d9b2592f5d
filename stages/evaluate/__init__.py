"""Judge every policy of a run on the held-out prompts and write ``report.html`` and ``report.json``.

With ``evaluate.judge=gold`` the toy world's judge, which no training code may see, gives the verdicts.

    python -m stages.evaluate
    python -m stages.evaluate evaluate.sampling.temperature=0.7 overwrite=true
"""
