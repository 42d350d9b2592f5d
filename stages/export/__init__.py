"""Write a reward model or the newest policy as a standard folder, for Transformers, PEFT, TRL and the Hub.

Reward models need ``reward.head.name=linear``. Not a stage of the pipeline: it changes nothing in the run.

    python -m stages.export export.what=policy
    python -m stages.export export.what=safety export.form=adapter export.to=models/safety run_dir=runs/linear
"""
