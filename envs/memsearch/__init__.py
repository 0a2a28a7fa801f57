"""Questions over long conversations and documents that must be searched.

The world of memory search (arXiv 2605.13486, 2402.17753, 1809.09600).
"""
