"""Talk to a policy of a run in the terminal; answers stream.

Type a message; /new starts over, /back takes back the last one, /help lists what there is, /quit (or Ctrl-D) leaves.
``--compare`` shows two policies side by side, each with a conversation of its own.

    python -m stages.chat
    python -m stages.chat --compare sft ppo run_dir=runs/toy
"""
