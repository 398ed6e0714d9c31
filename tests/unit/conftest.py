from hypothesis import HealthCheck, settings

# The machine that runs this may be busy with anything else; an example that takes long says nothing about us.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
