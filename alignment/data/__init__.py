"""Records, readers of other people's formats, and the encoding of dialogues into token ids and masks."""
