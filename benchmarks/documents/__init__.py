"""How well passages are found for questions, and what reading 1,000 pages costs (`make documents`)."""
