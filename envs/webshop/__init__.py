"""WebShop: a store with search, options and a graded purchase.

After Yao et al., "WebShop: Towards Scalable Real-World Web Interaction with
Grounded Language Agents" (arXiv 2207.01206), in its text mode.
"""
