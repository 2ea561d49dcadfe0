"""How the starter's model zoo was made: `python -m backend.starter.pretraining OUT`.

Not part of the loop: what it makes is shipped in `backend/starter/zoo`. It wants a GPU and cores
for drawing, and ten minutes.
"""
