"""SDE-DPM-Solver++(2M): the same solver for the stochastic equation (arXiv 2211.01095, appendix; k-diffusion)."""

from stages.unet.schedules.dpmpp_2m import Dpmpp2M


class Dpmpp2MSde(Dpmpp2M):
    """Forgets the latents twice as fast and replaces what it forgets by fresh noise; draws at every evaluation."""

    name = "dpmpp_2m_sde"
    stochastic = True
