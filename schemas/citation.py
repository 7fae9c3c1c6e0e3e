"""How the method is cited: on dataset cards and model cards."""

CITATION = """@article{yin2024relative,
  title   = {Relative Preference Optimization: Enhancing {LLM} Alignment through Contrasting Responses across Identical and Diverse Prompts},
  author  = {Yin, Yueqin and Wang, Zhendong and Gu, Yi and Huang, Hai and Chen, Weizhu and Zhou, Mingyuan},
  journal = {arXiv preprint arXiv:2402.10958},
  year    = {2024}
}"""  # noqa: E501
