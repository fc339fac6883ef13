"""The two contracts of this project, written once: what a model behind Triton is asked and what it answers.

`rows`       the tensors of the text contract (`youtu_llm`) and of the token contract (the engines), as data
`values`     reading, checking and packing tensors from their rows
`errors`     the error codes, their one JSON line on Triton's wire, and their HTTP statuses
`parts`      the parser that takes a text apart into thinking, tool calls and content
`responder`  what a Python model of Triton needs to talk to its caller
`documents`  writes the parts of config.pbtxt files and of docs/contract.md that follow from the rows

Needs numpy, and messages of protobuf that it is handed; independent of HTTP, engines and the model.
"""
