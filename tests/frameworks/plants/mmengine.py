"""mmengine: the optimizer's state is not loaded, as with resume_optimizer=False."""

from mmengine.runner import Runner

resume = Runner.resume
Runner.resume = lambda self, filename, *_, **__: resume(self, filename, resume_optimizer=False)
