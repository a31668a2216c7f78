from hypothesis import Phase, settings

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("ordinary", deadline=None, print_blob=True)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=3000)
# Where a failure is expected: the first is enough.
settings.register_profile(
    "hasty", deadline=None, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False
)
settings.load_profile("ordinary")
