from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("ordinary", deadline=None, print_blob=True)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile("ordinary")
