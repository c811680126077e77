"""The report document -> the forms that people read: Markdown, HTML, Graphviz DOT; the terminal draws from here, too.

``sections`` says once what a report tells and in which words; the forms only draw. Here belongs how the document's values are
read and shown, never a judgement: what is not in the document is "unknown". Pure; templates are read from the package once.
"""
