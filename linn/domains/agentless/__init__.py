"""What agentless tasks are made of: rows, prompts, retrieval, patches, a judge's question, tests that a model wrote."""
