"""Models as folders that Transformers, PEFT, TRL and the Hub read without Tandem."""
