# Countersign's definition of trusted images, assigned to one cluster.
#
#   terraform -chdir=azure-policy/terraform apply -var cluster_id=$(az aks show --name my-aks --resource-group countersign --query id --output tsv)

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.0"
    }
  }
}

provider "azurerm" {
  features {}
}

variable "cluster_id" {
  description = "Id of the AKS cluster, or of a resource group with clusters."
  type        = string
}

variable "effect" {
  description = "What happens to Pods with images that are not trusted: Audit, Deny or Disabled."
  type        = string
  default     = "Audit"
}

variable "excluded_namespaces" {
  description = "Namespaces to leave out."
  type        = list(string)
  default     = ["kube-system", "gatekeeper-system", "azure-arc", "aks-istio-system", "countersign-system"]
}

locals {
  trusted_images = jsondecode(file("${path.module}/../trusted-images.json"))
}

resource "azurerm_policy_definition" "trusted_images" {
  name         = "countersign-trusted-images"
  policy_type  = local.trusted_images.policyType
  mode         = local.trusted_images.mode
  display_name = local.trusted_images.displayName
  description  = local.trusted_images.description
  metadata     = jsonencode(local.trusted_images.metadata)
  parameters   = jsonencode(local.trusted_images.parameters)
  policy_rule  = jsonencode(local.trusted_images.policyRule)
}

resource "azurerm_resource_policy_assignment" "trusted_images" {
  name                 = "countersign-trusted-images"
  resource_id          = var.cluster_id
  policy_definition_id = azurerm_policy_definition.trusted_images.id
  display_name         = local.trusted_images.displayName
  parameters = jsonencode({
    effect             = { value = var.effect }
    excludedNamespaces = { value = var.excluded_namespaces }
  })
}
