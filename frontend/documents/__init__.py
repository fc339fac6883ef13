"""Documents that questions are asked about: read, cut into passages, and put before the model.

Who reads here: `reader` starts a process for each file (`worker`), which finds out what the file is (`files`,
`encodings`), takes its text (`formats`) and cuts it (`passages`, `words`). `library` keeps what callers sent,
`folder` is the knowledge base, `ranking` finds the passages for a question, and `quoting` puts them into the
conversation. `routes` is HTTP. No model and no service takes part in the search.
"""
