"""Before a run: whether a recipe's model, tokenizer, chat template, data and reward models fit together."""
